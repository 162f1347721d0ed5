// GET /status and /metrics on loopback: a small HTTP server on Boost.Beast. One request per
// connection, with a deadline; bodies of requests are refused.
//
// Thread: the io_context's one thread; `answer` runs on it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <functional>
#include <optional>
#include <string>

#include "common/result.h"
#include "launch/cluster_view.h"

namespace detente {

struct HttpAnswer {
    std::string type;  // "application/json"
    std::string body;
};

class HttpServer {
  public:
    // Nothing for a path that does not exist: 404.
    using Answer = std::function<std::optional<HttpAnswer>(const std::string& path)>;
    HttpServer(boost::asio::io_context& loop, Answer answer);
    ~HttpServer();
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;

    // Binds a free port of 127.0.0.1; io if it cannot.
    Result<void> listen();
    std::string address() const;  // "127.0.0.1:40123"
    void close();

  private:
    struct Session;
    void accept();

    boost::asio::io_context& loop_;
    Answer answer_;
    boost::asio::ip::tcp::acceptor acceptor_;
};

// Every process: what it does, what it waits for and since when; the stage; the books.
std::string status_json(const ClusterView& view);
// Prometheus text exposition 0.0.4.
std::string metrics_text(const ClusterView& view);
// The two above under /status and /metrics.
std::optional<HttpAnswer> answer_of(const ClusterView& view, const std::string& path);

}  // namespace detente
