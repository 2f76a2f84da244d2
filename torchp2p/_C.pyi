# The native surface. Addresses are integers, 0 for none; codes are those of csrc/include/torchp2p.

def cpu_isa() -> str: ...
def cpu_multiplies_bfloat16() -> bool: ...
def status_name(status: int, /) -> str: ...

# These, and the functions that return bytes of scratch memory, are there if the module was built with CUDA. The calls
# of all ops end with the index of a CUDA device (-1: the CPU) and a cudaStream_t.
def cuda_error() -> str: ...
def cuda_unavailable(device: int, /) -> str: ...
def cuda_architectures() -> str: ...
def norm_act_scratch(
    x_shape: tuple[int, ...],
    dtype: int,
    statistics: int,
    stat_groups: int,
    eps: float,
    act: int,
    slope: float,
    pad: int,
    pad_mode: int,
    channels_last: bool,
    /,
) -> int: ...
def norm_act_forward(
    x: int,
    weight: int,
    bias: int,
    residual: int,
    y: int,
    mean: int,
    var: int,
    scratch: int,
    x_shape: tuple[int, ...],
    x_stride: tuple[int, ...],
    residual_stride: tuple[int, ...],
    dtype: int,
    statistics: int,
    stat_groups: int,
    eps: float,
    act: int,
    slope: float,
    pad: int,
    pad_mode: int,
    channels_last: bool,
    device: int,
    stream: int,
    /,
) -> int: ...
def norm_act_backward(
    grad_y: int,
    x: int,
    weight: int,
    bias: int,
    residual: int,
    mean: int,
    var: int,
    grad_x: int,
    grad_weight: int,
    grad_bias: int,
    grad_residual: int,
    scratch: int,
    x_shape: tuple[int, ...],
    grad_y_stride: tuple[int, ...],
    x_stride: tuple[int, ...],
    residual_stride: tuple[int, ...],
    dtype: int,
    statistics: int,
    stat_groups: int,
    eps: float,
    act: int,
    slope: float,
    pad: int,
    pad_mode: int,
    channels_last: bool,
    device: int,
    stream: int,
    /,
) -> int: ...
def gan_loss_scratch(counts: list[int], /) -> int: ...
def gan_loss(
    maps: list[tuple[int, int, int]],
    dtype: int,
    mode: int,
    target_is_real: bool,
    loss: int,
    scratch: int,
    device: int,
    stream: int,
    /,
) -> int: ...
def feature_matching_loss_scratch(counts: list[int], /) -> int: ...
def feature_matching_loss_forward(
    pairs: list[tuple[int, int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], float]],
    dtype: int,
    loss: int,
    scratch: int,
    device: int,
    stream: int,
    /,
) -> int: ...
def feature_matching_loss_backward(
    gradients: list[tuple[int, int, int, float]], dtype: int, grad_loss: int, device: int, stream: int, /
) -> int: ...
def instance_avg_pool_scratch(x_shape: tuple[int, ...], dtype: int, /) -> int: ...
def instance_avg_pool(
    x: int,
    ids: int,
    y: int,
    scratch: int,
    x_shape: tuple[int, ...],
    x_stride: tuple[int, ...],
    ids_stride: tuple[int, ...],
    dtype: int,
    id_bytes: int,
    channels_last: bool,
    device: int,
    stream: int,
    /,
) -> int: ...
def instance_edges(
    ids: int,
    edges: int,
    ids_shape: tuple[int, ...],
    ids_stride: tuple[int, ...],
    id_bytes: int,
    edge_bytes: int,
    one: int,
    device: int,
    stream: int,
    /,
) -> int: ...
def label_conv2d_forward_scratch(
    image_shape: tuple[int, ...], sizes: tuple[int, int, int], window: tuple[int, ...], pad_mode: int, dtype: int, /
) -> int: ...
def label_conv2d_backward_scratch(
    image_shape: tuple[int, ...], sizes: tuple[int, int, int], window: tuple[int, ...], pad_mode: int, dtype: int, /
) -> int: ...
def label_conv2d_dense_gradient_scratch(
    image_shape: tuple[int, ...], sizes: tuple[int, int, int], window: tuple[int, ...], pad_mode: int, dtype: int, /
) -> int: ...
def label_conv2d_forward(
    labels: int,
    dense: int,
    weight: int,
    bias: int,
    y: int,
    bad_label: int,
    scratch: int,
    labels_shape: tuple[int, ...],
    label_stride: tuple[int, ...],
    dense_stride: tuple[int, ...],
    weight_stride: tuple[int, ...],
    sizes: tuple[int, int, int],
    window: tuple[int, ...],
    pad_mode: int,
    dtype: int,
    label_type: int,
    channels_last: bool,
    ignore_out_of_range: bool,
    device: int,
    stream: int,
    /,
) -> tuple[int, int]: ...
def label_conv2d_backward(
    labels: int,
    dense: int,
    grad_y: int,
    grad_weight: int,
    grad_bias: int,
    scratch: int,
    labels_shape: tuple[int, ...],
    label_stride: tuple[int, ...],
    dense_stride: tuple[int, ...],
    grad_y_stride: tuple[int, ...],
    grad_weight_stride: tuple[int, ...],
    sizes: tuple[int, int, int],
    window: tuple[int, ...],
    pad_mode: int,
    dtype: int,
    label_type: int,
    device: int,
    stream: int,
    /,
) -> int: ...
def label_conv2d_dense_gradient(
    grad_y: int,
    weight: int,
    grad_dense: int,
    scratch: int,
    dense_shape: tuple[int, ...],
    grad_y_stride: tuple[int, ...],
    weight_stride: tuple[int, ...],
    sizes: tuple[int, int, int],
    window: tuple[int, ...],
    pad_mode: int,
    dtype: int,
    channels_last: bool,
    device: int,
    stream: int,
    /,
) -> int: ...
