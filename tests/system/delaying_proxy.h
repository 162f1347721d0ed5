// Stands between two ends of TCP connections and hands on what each sends a while later: latency,
// where the kernel has no netem. It listens on one address and connects to another, at the same
// ports, as a published port of a container does. It can also cut a connection, once.
//
// Thread: one of its own; passed_bytes() and cuts() may be asked from any.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace detente::test {

// Of all that passes one port in one direction, the connection that would bring more than so many
// bytes is closed at both ends when it has brought those. What comes on others goes through, and
// whoever connects again is let through too.
struct CutOnce {
    std::size_t which = 0;  // of the ports
    bool from_inside = false;
    std::uint64_t after_bytes = 0;
};

class DelayingProxy {
  public:
    // Throws where a port is taken.
    DelayingProxy(const std::string& outside, const std::string& inside,
                  const std::vector<std::uint16_t>& ports, std::chrono::milliseconds delay,
                  std::optional<CutOnce> cut = {});
    ~DelayingProxy();
    DelayingProxy(const DelayingProxy&) = delete;
    DelayingProxy& operator=(const DelayingProxy&) = delete;
    std::uint64_t passed_bytes() const { return passed_bytes_; }
    int cuts() const { return limit_.cuts; }

    static constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
    // How much may still pass where a connection is to be cut.
    struct Limit {
        std::uint64_t left_bytes = kNoLimit;  // the loop's
        std::atomic<int> cuts = 0;
    };

  private:
    void accept(std::size_t which);

    boost::asio::io_context loop_{1};
    std::string inside_;
    std::chrono::milliseconds delay_;
    std::optional<CutOnce> cut_;
    Limit limit_;
    std::vector<boost::asio::ip::tcp::acceptor> acceptors_;
    std::atomic<std::uint64_t> passed_bytes_ = 0;
    std::thread thread_;
};

}  // namespace detente::test
