// Stands between two ends of TCP connections and hands on what each sends a while later: latency,
// where the kernel has no netem. It listens on one address and connects to another, at the same
// ports, as a published port of a container does.
//
// Thread: one of its own; passed_bytes() may be asked from any.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace detente::test {

class DelayingProxy {
  public:
    // Throws where a port is taken.
    DelayingProxy(const std::string& outside, const std::string& inside,
                  const std::vector<std::uint16_t>& ports, std::chrono::milliseconds delay);
    ~DelayingProxy();
    DelayingProxy(const DelayingProxy&) = delete;
    DelayingProxy& operator=(const DelayingProxy&) = delete;
    std::uint64_t passed_bytes() const { return passed_bytes_; }

  private:
    void accept(std::size_t which);

    boost::asio::io_context loop_{1};
    std::string inside_;
    std::chrono::milliseconds delay_;
    std::vector<boost::asio::ip::tcp::acceptor> acceptors_;
    std::atomic<std::uint64_t> passed_bytes_ = 0;
    std::thread thread_;
};

}  // namespace detente::test
