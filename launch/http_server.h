// GET /status and /metrics, and POST /control, on loopback: a small HTTP server on Boost.Beast. One
// request per connection, with a deadline and a bound on its bytes.
//
// Thread: the io_context's one thread; `answer` and `post` run on it.
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

struct HttpPost {
    std::string path;
    std::string token;  // the header kTokenHeader (launch/control_request.h); empty = none
    std::string body;
};
struct HttpReply {
    unsigned status = 200;
    HttpAnswer answer;
};
// To be called once, then or later.
using HttpRespond = std::function<void(HttpReply reply)>;

class HttpServer {
  public:
    // Nothing for a path that does not exist: 404.
    using Answer = std::function<std::optional<HttpAnswer>(const std::string& path)>;
    using Post = std::function<void(const HttpPost& post, HttpRespond respond)>;
    HttpServer(boost::asio::io_context& loop, Answer answer, Post post);
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
    Post post_;
    boost::asio::ip::tcp::acceptor acceptor_;
};

// Every process: what it does, what it waits for and since when; the stage; the books.
std::string status_json(const ClusterView& view);
// Prometheus text exposition 0.0.4.
std::string metrics_text(const ClusterView& view);
// The two above under /status and /metrics.
std::optional<HttpAnswer> answer_of(const ClusterView& view, const std::string& path);

}  // namespace detente
