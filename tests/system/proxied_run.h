// A run whose ranks reach each other through a proxy: they listen on 127.0.0.1 and are connected to
// at 127.0.0.2, at the same ports.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/system/daemons.h"
#include "tests/system/delaying_proxy.h"

namespace detente::test {

// Ports of which the proxy and the run have the same, on two addresses: of the coordinator first,
// then of the shards.
struct Between {
    explicit Between(std::chrono::milliseconds delay, std::optional<CutOnce> cut = {}) {
        for (int attempt = 0; proxy == nullptr; ++attempt) {
            first = free_port();
            const std::vector<std::uint16_t> ports = {first, static_cast<std::uint16_t>(first + 1),
                                                      static_cast<std::uint16_t>(first + 2)};
            try {
                proxy =
                    std::make_unique<DelayingProxy>("127.0.0.2", "127.0.0.1", ports, delay, cut);
            } catch (const std::exception&) {
                if (attempt == 20) throw;
            }
        }
    }
    std::uint16_t first = 0;
    std::unique_ptr<DelayingProxy> proxy;
};

inline std::vector<std::string> ports_and(const Between& between, const std::string& bind,
                                          const std::string& advertise) {
    return {"--set", "transport.kind=tcp",
            "--set", "transport.port=" + std::to_string(between.first),
            "--set", "transport.bind_address=" + bind,
            "--set", "transport.advertise_address=" + advertise};
}

}  // namespace detente::test
