raise ImportError("this is not the torch that you are looking for")
