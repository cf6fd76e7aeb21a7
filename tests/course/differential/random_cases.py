"""Random cases of every kind, for tests and for hypothesis."""

import random

from course.differential import Case


def random_case(seed: int) -> Case:
    rng = random.Random(seed)
    kv_heads = rng.choice([1, 2, 3])
    lens = [rng.choice([0, 1, 2, 5, 8, 17, 40, 100, 300]) for _ in range(rng.randint(1, 4))]
    case = Case.of(
        lens,
        [rng.randint(0, min(9, max(1, length))) for length in lens],
        num_heads=kv_heads * rng.choice([1, 2, 3, 4]),
        num_kv_heads=kv_heads,
        head_size=rng.choice([8, 16]),
        block_size=rng.choice([1, 2, 4, 8, 16]),
        window=rng.choice([None, None, 1, 6, 50]),
        layout=rng.choice(["NHD", "HND"]),
        dtype=rng.choice(["float32", "float16"]),
        kv_dtype=rng.choice(["auto", "auto", "fp8"]),
        k_scale=rng.choice([1.0, 0.25, 2]),
        v_scale=rng.choice([1, 0.5, 4.0]),
        magnitude=rng.choice([0.1, 1.0, 1.0, 4.0, 16.0]),
        unowned=rng.choice(["nan", "zeros", "large"]),
        lowest_block=rng.choice([0, 2**27]),
        seed=seed,
    )
    if rng.random() < 0.5:
        stay = [r for r in range(len(lens)) if rng.random() < 0.7] or [0]
        case = case.then({r: lens[r] + 1 for r in stay}, moved=[r for r in stay if rng.random() < 0.5])
    return case
