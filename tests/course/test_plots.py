"""The pictures say in words what they show, and draw what they are given."""

import pytest
from matplotlib.text import Text

from course import plots


def texts(picture: plots.Picture) -> list[str]:
    picture.canvas.draw()
    return [text.get_text() for text in picture.findobj(Text) if text.get_text()]


def test_a_picture_is_an_image_with_alternative_text() -> None:
    picture = plots.query_layout([2], [1])
    picture.alt_text = 'a "quoted" <word>'
    bundle = picture._repr_mimebundle_()
    assert bundle["text/plain"] == 'a "quoted" <word>'
    assert 'alt="a &quot;quoted&quot; &lt;word&gt;"' in bundle["text/html"]
    assert "data:image/png;base64,iVBOR" in bundle["text/html"]


def test_a_notebook_shows_the_html_and_not_a_second_image() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    data, _ = shell.display_formatter.format(plots.query_layout([2], [1]))
    assert set(data) == {"text/html", "text/plain"}


def test_cache_map_puts_tokens_where_slot_mapping_does() -> None:
    picture = plots.cache_map([[5, 2, 6], [7], [3, 1]], [8, 2, 0], [1, 1, 5], block_size=4, num_blocks=8)
    for written in ("into slots 24", "into slots 30", "into slots 12, 13, 14, 15, 4"):
        assert written in picture.alt_text
    shown = texts(picture)
    # Physical cells, in the order of the blocks: block 1 holds C4, block 2 the second block of A, ...
    held = [text for text in shown if text[0] in "ABC" and text[1:].isdigit()]
    assert held == [
        "C4",
        "A4",
        "A5",
        "A6",
        "A7",
        "C0",
        "C1",
        "C2",
        "C3",
        "A0",
        "A1",
        "A2",
        "A3",
        "A8",
        "B0",
        "B1",
        "B2",
    ]


def test_query_layout_names_starts_and_lengths() -> None:
    picture = plots.query_layout([8, 2, 0, 0], [1, 1, 5, 0])
    assert "query_start_loc [0, 1, 2, 7, 7]" in picture.alt_text
    assert {"seq_len 9", "seq_len 3", "seq_len 5", "seq_len 0", "7"} <= set(texts(picture))


def test_pool_map_marks_owner_and_logical_block() -> None:
    picture = plots.pool_map({"now": [(0, 1), None, (1, 0), (0, 0)]}, columns=2)
    assert "0 holds A1, 1 free, 2 holds B0, 3 holds A0" in picture.alt_text
    assert {"A0", "A1", "B0"} <= set(texts(picture))


def test_memory_use_adds_up() -> None:
    picture = plots.memory_use(
        {"one": 10, "two": 60}, {"one": 80, "two": 64}, {"one": 1, "two": 6}, capacity=100
    )
    assert (
        "one: 1 requests, 10 % of the cache holds tokens, 70.0 % is reserved and empty, 20.0 % is free"
        in (picture.alt_text)
    )
    with pytest.raises(ValueError, match="same policies"):
        plots.memory_use({"one": 1}, {"two": 1}, {"one": 1}, 10)


def test_softmax_states_shows_the_answer_so_far_and_an_empty_state() -> None:
    picture = plots.softmax_states([[2.0, 1.0], [5.0]], [2.0, 5.0], [0.0, 2.0], [0.0, 5.0])
    assert "answer so far 0;" in picture.alt_text
    assert "answer so far 2.5" in picture.alt_text
    with pytest.raises(ValueError, match="per tile"):
        plots.softmax_states([[2.0]], [2.0], [1.0, 1.0], [0.0])
