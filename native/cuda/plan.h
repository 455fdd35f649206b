// The table of operations: which kernel, how much workspace, what it costs, and how it is launched.
#pragma once

#include "stream.h"

namespace warpsight::cuda {

std::unique_ptr<Step> plan_step(const std::shared_ptr<Context>& context, const StepSpec& spec);

}  // namespace warpsight::cuda
