#include "tensor_map.h"

namespace warpsight::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// From the driver that the runtime has loaded: the addon links no libcuda.
Encode encode_function(Device& device) {
    static const Encode encode = [&] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult found;
        device.check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
                     "cuTensorMapEncodeTiled cannot be found");
        if (found != cudaDriverEntryPointSuccess) throw Error("ERR_DEVICE", device.name + ": the driver has no tensor maps");
        return reinterpret_cast<Encode>(function);
    }();
    return encode;
}

}  // namespace

CUtensorMap tensor_map(const Launch& launch, DType dtype, const void* data, int64_t rows, int64_t columns, int64_t pitch,
                       int box_rows) {
    CUtensorMap map;
    cuuint64_t sizes[] = {cuuint64_t(columns), cuuint64_t(rows)}, strides[] = {cuuint64_t(pitch) * 2};
    cuuint32_t box[] = {64, cuuint32_t(box_rows)}, steps[] = {1, 1};
    CUresult status = encode_function(launch.device)(
        &map, dtype == DType::float16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
        const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (status != CUDA_SUCCESS)
        throw Error("ERR_DEVICE", launch.device.name + ": no tensor map for [" + std::to_string(rows) + ", " +
                                      std::to_string(columns) + "], rows " + std::to_string(pitch) + " apart: error " +
                                      std::to_string(int(status)));
    return map;
}

}  // namespace warpsight::cuda
