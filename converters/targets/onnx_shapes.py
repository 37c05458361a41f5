"""ONNX files as vendors' compilers take them: fixed batch, older operator sets, other operators."""

from converters.refusal import StageFailed
from edge_core.errors import quoted


def one_row(data: bytes, opset: int | None = None) -> bytes:
    """The same model for a batch of one, in an older operator set where one is named.

    Raises:
        StageFailed: an operator does not exist in that set.
    """
    import onnx
    from onnx import version_converter

    model = onnx.load_model_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.ClearField("dim_param")
        dim.dim_value = 1
    del model.graph.value_info[:]
    try:
        if opset is not None and model.opset_import[0].version > opset:
            model = version_converter.convert_version(model, opset)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # its errors share no base class
        raise StageFailed(
            f"the model does not fit operator set {opset}: {quoted(error)}"
        ) from error
    fixed: bytes = model.SerializeToString(deterministic=True)
    return fixed


def without_subtractions(data: bytes) -> bytes:
    """The same model with ``x + (-c)`` for ``x - c``, where ``c`` is a constant in float.

    Both are equal to the last bit.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(data)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        subtrahend = constants.get(node.input[1]) if node.op_type == "Sub" else None
        if subtrahend is None or subtrahend.data_type != onnx.TensorProto.FLOAT:
            continue
        name = f"{subtrahend.name}/negative"
        if name not in constants:
            negative = numpy_helper.from_array(-numpy_helper.to_array(subtrahend), name)
            model.graph.initializer.append(negative)
            constants[name] = negative
        node.op_type = "Add"
        node.input[1] = name
    fixed: bytes = model.SerializeToString(deterministic=True)
    return fixed
