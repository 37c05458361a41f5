def chosen(folder, recipe):
    return {"accuracy": lambda l, y: float((l.argmax(axis=1) == y).mean())}
