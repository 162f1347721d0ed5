#include "common/build_id.h"

#include <xxhash.h>

#include "common/wire_version.h"

namespace detente {

std::string build_description() {
    std::string text = "detente 0.1.0, wire " + std::to_string(kWireVersion) + ", gcc " __VERSION__;
#ifdef NDEBUG
    return text + ", release";
#else
    return text + ", debug";
#endif
}

std::uint64_t build_id() {
    const std::string text = build_description();
    return XXH3_64bits(text.data(), text.size());
}

}  // namespace detente
