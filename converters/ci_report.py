class Verdicts:
    def __init__(self, **k): pass
def write(folder, v): pass
