"""The benchmark's opponent: the same network in plain PyTorch, fed and trained as is usual there.

ResNet-v2, ASPP and decoder compute the same multiply-adds as nets/resnet_v2.py and deeplab_model.py; the
benchmark compares the counts. Its input is one batch of noise in memory.

Letters in shape comments: B batch, H W input size, h w feature size, C channels, K classes.
"""
import contextlib
import functools

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Bench
from nets import backbones
from utils import environment

_DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
_BLOCKS = {  # (depth, units, stride of the last unit), as in nets/resnet_v2.py
    'resnet_v2_50': ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)),
    'resnet_v2_101': ((64, 3, 2), (128, 4, 2), (256, 23, 2), (512, 3, 1)),
}
_ASPP_DEPTH = 256


def bench(mode, params, dataset):
  """Returns the Bench of a mode, train or infer.

  Args:
    mode: str.
    params: dict, the flags.
    dataset: descriptors.Dataset.
  """
  on_gpu = torch.cuda.is_available()
  device = torch.device('cuda' if on_gpu else 'cpu')
  torch.set_float32_matmul_precision('high')  # as in TensorFlow, fp32 is TF32 on GPUs that have it
  torch.backends.cudnn.benchmark = True
  torch.manual_seed(0)
  network = deep_lab(params, dataset).to(device, memory_format=torch.channels_last)
  source = noise(mode, params, dataset)
  batch = []

  def load():
    batch[:] = (tensor.to(device, copy=True) for tensor in source)

  step = (train_step if mode == 'train' else predict)(network, params, device)
  return Bench(
      load, compute=lambda: step(*batch), wait=torch.cuda.synchronize if on_gpu else lambda: None,
      images=len(source[0]), multiply_adds=multiply_adds(source[0].shape, params, dataset),
      framework=f'PyTorch {torch.__version__}',
      device=torch.cuda.get_device_name() if on_gpu else f'{environment.cores()} CPU cores', on_gpu=on_gpu,
      plain_products=functools.partial(plain_products, device, _DTYPES[params['precision']]),
      device_peak_mib=lambda: torch.cuda.max_memory_allocated() / 2 ** 20)


def noise(mode, params, dataset):
  """Returns uint8 images [B, H, W, 3] and labels [B, H, W], 0..K-1, in memory that a GPU copies fast."""
  batch_size, size = ((params['batch_size'], params['crop_size']) if mode == 'train'
                      else (1, params['image_size']))
  batch = (torch.randint(0, 256, (batch_size, *size, 3), dtype=torch.uint8),
           torch.randint(0, dataset.num_classes, (batch_size, *size), dtype=torch.uint8))
  return [tensor.pin_memory() for tensor in batch] if torch.cuda.is_available() else batch


def train_step(network, params, device):
  """Returns a function of images and labels: forward, backward, momentum SGD with weight decay."""
  optimizer = torch.optim.SGD(network.parameters(), lr=7e-3, momentum=0.9, weight_decay=2e-4)
  scaler = torch.amp.GradScaler(device.type, enabled=params['precision'] == 'fp16')
  forward = torch.compile(network) if device.type == 'cuda' else network

  def step(images, labels):
    optimizer.zero_grad(set_to_none=True)
    with autocast(params, device):
      logits = forward(images)
    loss = functional.cross_entropy(logits.float(), labels.long(), ignore_index=params['ignore_label'])
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss

  return step


def predict(network, params, device):
  """Returns a function of images and (unused) labels: the class of every pixel, [B, H, W]."""
  network.eval()
  forward = torch.compile(network) if device.type == 'cuda' else network

  @torch.inference_mode()
  def step(images, _):
    with autocast(params, device):
      return forward(images).argmax(1)

  return step


def autocast(params, device):
  return torch.autocast(device.type, _DTYPES[params['precision']], enabled=params['precision'] != 'fp32')


def multiply_adds(batch_shape, params, dataset):
  """Returns the multiply-adds of one forward pass, counted by PyTorch without computing: int."""
  with torch.device('meta'), FlopCounterMode(display=False) as counter:
    deep_lab(params, dataset).eval()(torch.empty(batch_shape, dtype=torch.uint8))
  return counter.get_total_flops() // 2


@contextlib.contextmanager
def plain_products(device, dtype, plain):
  """Yields name -> function that runs the product and waits for it; see Bench."""
  def variable(*shape):
    return (torch.randn(shape, device=device) * shape[1]**-0.5).to(dtype)

  def run(step, value):
    for _ in range(plain.chain):
      value = step(value)
    if device.type == 'cuda':
      torch.cuda.synchronize()

  matrix = variable(plain.size, plain.size)
  images, kernel = (tensor.to(memory_format=torch.channels_last) for tensor in (
      variable(plain.batch, plain.channels, plain.side, plain.side),
      variable(plain.channels, plain.channels, 3, 3)))
  with torch.inference_mode():
    yield {'matrix_product': functools.partial(run, lambda value: value @ matrix, matrix),
           'convolution': functools.partial(
               run, lambda value: functional.conv2d(value, kernel, padding=1), images)}


# --- The network ---


def deep_lab(params, dataset):
  return DeepLab(backbones.get(params['base_architecture']), params['output_stride'], dataset.num_classes)


class DeepLab(nn.Module):
  """DeepLabv3+ on ResNet-v2: uint8 images [B, H, W, 3] to logits [B, K, H, W]."""

  def __init__(self, row, output_stride, num_classes):
    super().__init__()
    self.register_buffer('channel_means', torch.tensor(row.channel_means).view(1, 3, 1, 1))
    self.backbone = ResNetV2(row.name, output_stride)
    rates = [rate * 16 // output_stride for rate in row.atrous_rates]
    self.aspp = Aspp(2048, rates)
    self.low = conv_norm(64, 48, 1)
    self.decoder = nn.Sequential(conv_norm(_ASPP_DEPTH + 48, 256, 3), conv_norm(256, 256, 3),
                                 nn.Conv2d(256, num_classes, 1))

  def forward(self, images):
    images = images.permute(0, 3, 1, 2).float() - self.channel_means  # [B, 3, H, W], channels last in memory
    high, low = self.backbone(images)
    low = self.low(low)
    net = torch.cat([resize(self.aspp(high), low), low], 1)  # [B, 256 + 48, H/4, W/4]
    return resize(self.decoder(net), images)


class ResNetV2(nn.Module):
  """ResNet-v2: returns the features [B, 2048, h, w] and those of stride 4 [B, 64, H/4, W/4]."""

  def __init__(self, name, output_stride):
    super().__init__()
    self.root = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
    self.units, channels = nn.ModuleList(), 64
    remaining, rate = output_stride // 4, 1  # the root takes 4
    for depth, units, last_stride in _BLOCKS[name]:
      for stride in (units - 1) * [1] + [last_stride]:
        drop = stride > remaining  # then what follows is atrous
        self.units.append(Bottleneck(channels, depth, 1 if drop else stride, rate))
        remaining, rate = (remaining, rate * stride) if drop else (remaining // stride, rate)
        channels = 4 * depth
    self.low_unit = _BLOCKS[name][0][1] - 1  # the last of the first block

  def forward(self, images):
    net = self.root(images)
    for index, unit in enumerate(self.units):
      net, reduced = unit(net)
      if index == self.low_unit:
        low = reduced
    return net, low


class Bottleneck(nn.Module):
  """A residual unit with pre-activation: returns its output and its reduced input."""

  def __init__(self, channels, depth, stride, rate):
    super().__init__()
    self.preact = nn.Sequential(batch_norm(channels), nn.ReLU(inplace=True))
    self.project = None if channels == 4 * depth else nn.Conv2d(channels, 4 * depth, 1)
    self.subsample = nn.MaxPool2d(1, stride)
    self.reduce = conv_norm(channels, depth, 1)
    self.expand = nn.Sequential(conv_norm(depth, depth, 3, stride, rate), nn.Conv2d(depth, 4 * depth, 1))
    self.stride = stride

  def forward(self, inputs):
    preact = self.preact(inputs)
    if self.project:
      shortcut = self.project(preact)
    else:
      shortcut = inputs if self.stride == 1 else self.subsample(inputs)
    reduced = self.reduce(preact)
    return shortcut + self.expand(reduced), reduced


class Aspp(nn.Module):
  """Atrous spatial pyramid pooling: [B, C, h, w] to [B, 256, h, w]."""

  def __init__(self, channels, rates):
    super().__init__()
    self.branches = nn.ModuleList([conv_norm(channels, _ASPP_DEPTH, 1), *(
        conv_norm(channels, _ASPP_DEPTH, 3, rate=rate) for rate in rates)])
    self.image_level = conv_norm(channels, _ASPP_DEPTH, 1)
    self.project = conv_norm((2 + len(rates)) * _ASPP_DEPTH, _ASPP_DEPTH, 1)

  def forward(self, features):
    pooled = self.image_level(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
    return self.project(torch.cat([*(branch(features) for branch in self.branches), pooled], 1))


def conv_norm(inputs, outputs, kernel, stride=1, rate=1):
  padding = rate * (kernel // 2)
  return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding, rate, bias=False),
                       batch_norm(outputs), nn.ReLU(inplace=True))


def batch_norm(channels):
  return nn.BatchNorm2d(channels, eps=1.001e-5, momentum=3e-4)


def resize(features, like):
  return functional.interpolate(features, like.shape[2:], mode='bilinear', align_corners=False)
