def layer_errors(floats, calibration, wanted):
    return {}


def mixed(*a):
    raise NotImplementedError
