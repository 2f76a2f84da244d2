# The native surface. Addresses are integers, 0 for none; codes are those of csrc/include/torchp2p.

def cpu_isa() -> str: ...
def status_name(status: int, /) -> str: ...
def norm_act_forward(
    x: int,
    weight: int,
    bias: int,
    residual: int,
    y: int,
    mean: int,
    var: int,
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
    /,
) -> int: ...
def gan_loss(maps: list[tuple[int, int, int]], dtype: int, mode: int, target_is_real: bool, loss: int, /) -> int: ...
def feature_matching_loss_forward(
    pairs: list[tuple[int, int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], float]],
    dtype: int,
    loss: int,
    /,
) -> int: ...
def feature_matching_loss_backward(
    gradients: list[tuple[int, int, int, float]], dtype: int, grad_loss: int, /
) -> int: ...
def instance_avg_pool(
    x: int,
    ids: int,
    y: int,
    x_shape: tuple[int, ...],
    x_stride: tuple[int, ...],
    ids_stride: tuple[int, ...],
    dtype: int,
    id_bytes: int,
    channels_last: bool,
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
    /,
) -> int: ...
