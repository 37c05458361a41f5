def single_feature(a, b, c, d):
    return 0, 0.0
