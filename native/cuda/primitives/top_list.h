// The k <= 32 largest of all that a warp was shown, one in each lane.
//
//   lane   0    1    2    3  …        offer: while the largest key offered is above the last of the k,
//   key   97   93   93   60  …               it moves into its place and those below move down a lane
#pragma once

#include "order.h"

namespace warpsight::cuda {

struct TopList {
    uint32_t key = 0;  // of rank `lane`; 0, which is the key of no number: none yet
    uint32_t index = 0;

    /// Takes in V keys of each lane (0: none); those taken become 0. They are those of first, first + 1, … in the order of lanes
    /// and inside a lane, and `first` rises from call to call: so of equal keys that of the smaller index stays above. All 32
    /// lanes must call.
    template <int V>
    __device__ __forceinline__ void offer(uint32_t (&keys)[V], uint32_t first, int k) {
        constexpr unsigned all = 0xffffffffu;
        const int lane = threadIdx.x % 32;
        for (;;) {
            uint32_t mine = keys[0];
            int at = 0;
#pragma unroll
            for (int v = 1; v < V; ++v)
                if (keys[v] > mine) mine = keys[v], at = v;
            const uint32_t best = __reduce_max_sync(all, mine);
            if (best <= __shfl_sync(all, key, k - 1)) return;
            const int owner = __ffs(__ballot_sync(all, mine == best)) - 1;
            const uint32_t its_index = first + owner * V + __shfl_sync(all, at, owner);
            if (lane == owner) {
#pragma unroll
                for (int v = 0; v < V; ++v)
                    if (v == at) keys[v] = 0;
            }
            const uint32_t key_above = __shfl_up_sync(all, key, 1), index_above = __shfl_up_sync(all, index, 1);
            const bool stays = key >= best, here = lane == 0 || key_above >= best;
            key = stays ? key : here ? best : key_above;
            index = stays ? index : here ? its_index : index_above;
        }
    }
};

}  // namespace warpsight::cuda
