// Over what a method resolves conflicts: all shared blocks at once, or layer by layer, or block by
// block, each with weights and state of its own.
#pragma once

namespace detente {

enum class ConflictScope {
    global,
    layer,  // tensors whose names agree up to their last '.'
    block,
};

}  // namespace detente
