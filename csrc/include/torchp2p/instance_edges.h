// instance_edges: 1 where an id differs from that of a neighbour to the left, right, above or below, else 0.
// Definition: torchp2p/reference/instance_edges.py.
#pragma once

#include <cstdint>

#include "torchp2p/status.h"
#include "torchp2p/strides.h"

namespace torchp2p {

struct InstanceEdgesParams {
  const void* ids;  // (N, 1, H, W): integers of id_bytes bytes, told apart by their bits alone
  void* edges;      // (N, 1, H, W), dense
  std::int64_t n, h, w;
  Strides ids_stride;
  int id_bytes, edge_bytes;  // 1, 2, 4 or 8
  std::uint64_t one;         // the bits of a 1 of edge_bytes bytes
};

Status instance_edges_cpu(const InstanceEdgesParams& params);
Status instance_edges_cuda(const InstanceEdgesParams& params, int device, void* stream);

}  // namespace torchp2p
