#include "bench/wire_processes.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>
#include <utility>

#include "common/invariant.h"
#include "common/runtime/zmq/allocator.h"
#include "common/runtime/zmq/loop.h"
#include "ps/shard.h"

namespace detente::bench {
namespace {

struct RawRequest {
    std::uint64_t bytes = 0;
    std::uint64_t chunk_bytes = 0;
    std::uint64_t what = 0;
};

bool write_exactly(int file, const void* bytes, std::size_t size) {
    const char* at = static_cast<const char*>(bytes);
    while (size > 0) {
        const ssize_t written = ::write(file, at, size);
        if (written <= 0) return false;
        at += written;
        size -= static_cast<std::size_t>(written);
    }
    return true;
}
bool read_exactly(int file, void* bytes, std::size_t size) {
    char* at = static_cast<char*>(bytes);
    while (size > 0) {
        const ssize_t got = ::read(file, at, size);
        if (got <= 0) return false;
        at += got;
        size -= static_cast<std::size_t>(got);
    }
    return true;
}

std::pair<sockaddr_un, socklen_t> abstract_address(const std::string& name) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

int listen_raw(bool tcp, std::string& name) {
    const int listener = ::socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    if (tcp) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        invariant(::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0, "bound");
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
        name = std::to_string(ntohs(address.sin_port));
    } else {
        name = "detente-raw-" + std::to_string(::getpid());
        const auto [address, size] = abstract_address(name);
        invariant(::bind(listener, reinterpret_cast<const sockaddr*>(&address), size) == 0,
                  "bound");
    }
    invariant(::listen(listener, 1) == 0, "listens");
    return listener;
}

// Reads a chunk, adds it where it belongs, and so on.
int raw_main(bool tcp, std::uint64_t bytes) {
    std::string name;
    const int listener = listen_raw(tcp, name);
    std::cout << name << std::endl;
    const int peer = ::accept(listener, nullptr, nullptr);
    const int one = 1;
    if (tcp) ::setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    std::vector<float> store(bytes / sizeof(float), 1.0F);
    std::vector<float> chunk(bytes / sizeof(float));
    RawRequest request;
    while (read_exactly(peer, &request, sizeof request)) {
        char* stored = reinterpret_cast<char*>(store.data());
        for (std::uint64_t at = 0; request.what != 'g' && at < request.bytes;) {
            const std::uint64_t size = std::min(request.chunk_bytes, request.bytes - at);
            if (!read_exactly(peer, chunk.data(), size)) return 1;
            float* target = store.data() + (at % bytes) / sizeof(float);
            for (std::uint64_t i = 0; i < size / sizeof(float); ++i) target[i] += chunk[i];
            at += size;
        }
        if (request.what == 'p' && !write_exactly(peer, &one, 1)) return 1;
        for (std::uint64_t at = 0; request.what != 'p' && at < request.bytes;) {
            const std::uint64_t size = std::min(request.chunk_bytes, request.bytes - at);
            if (!write_exactly(peer, stored + at % bytes, size)) return 1;
            at += size;
        }
    }
    return 0;
}

int serve(const WireSetup& setup, std::uint32_t index) {
    tune_allocator_for_frames();
    const auto job = std::make_shared<Job>(setup.job());
    auto plan = make_plan(setup.model(), *job);
    invariant(plan.has_value(), "the bench's own job is a good one");
    ShardSetup shard_setup;
    shard_setup.id = ShardId{index};
    shard_setup.job = job;
    shard_setup.plan = std::make_shared<Plan>(std::move(*plan));
    shard_setup.training_samples = 1;
    auto shard = Shard::create(std::move(shard_setup));
    invariant(shard.has_value(), "the bench's own shard is a good one");
    ZmqLoopOptions options;
    options.self = node_of(ShardId{index});
    options.host = "bench";
    options.transport = setup.transport;
    options.checksum = job->checksum;
    options.log = [](LogLevel, std::string_view text) { std::cerr << text << "\n"; };
    auto loop = ZmqLoop::open(std::move(options));
    invariant(loop.has_value(), "a free port is there");
    const Endpoint endpoint = (*loop)->endpoint();
    std::cout << endpoint.tcp << " " << endpoint.ipc << std::endl;
    std::thread watcher([&loop] {
        char byte = 0;
        while (::read(STDIN_FILENO, &byte, 1) > 0) {
        }
        (*loop)->post(Received{Message{Envelope{}, Stop{"the bench is over", false}}});
    });
    (*loop)->run(**shard);
    watcher.join();
    return 0;
}

}  // namespace

Job WireSetup::job() const {
    Job job;
    job.servers = servers;
    job.workers = workers;
    job.rule = *rule_defaults(rule);
    job.policy.name = "async";
    job.policy.parameters.clear();
    job.transport = transport;
    job.checksum = checksums ? ChecksumMode::on : ChecksumMode::off;
    return job;
}

ModelDescription WireSetup::model() const {
    ModelDescription model;
    model.model = "bench";
    model.tasks = {"task"};
    model.training_samples = 1;
    for (std::uint32_t i = 0; i < tensors; ++i) {
        const auto elements = static_cast<std::int64_t>(tensor_bytes / sizeof(float));
        model.tensors.push_back({"tensor" + std::to_string(i), {elements}, TaskSet{1}, false});
    }
    return model;
}

Child::Child(const std::vector<std::string>& arguments) {
    const auto start = std::chrono::steady_clock::now();
    int to_child[2];
    int from_child[2];
    invariant(::pipe2(to_child, O_CLOEXEC) == 0 && ::pipe2(from_child, O_CLOEXEC) == 0, "pipes");
    pid_ = ::fork();
    if (pid_ == 0) {
        ::dup2(to_child[0], STDIN_FILENO);
        ::dup2(from_child[1], STDOUT_FILENO);
        std::vector<char*> argv{const_cast<char*>("wire_bench")};
        for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
        argv.push_back(nullptr);
        ::execv("/proc/self/exe", argv.data());
        ::_exit(127);
    }
    ::close(to_child[0]);
    ::close(from_child[1]);
    input_ = to_child[1];
    char byte = 0;
    while (::read(from_child[0], &byte, 1) == 1 && byte != '\n') line_.push_back(byte);
    ::close(from_child[0]);
    start_ms_ =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

Child::~Child() {
    if (pid_ < 0) return;
    ::close(input_);
    ::waitpid(pid_, nullptr, 0);
}

Child::Child(Child&& other) noexcept { *this = std::move(other); }
Child& Child::operator=(Child&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(input_, other.input_);
    std::swap(line_, other.line_);
    std::swap(start_ms_, other.start_ms_);
    return *this;
}

double Child::cpu_s() const {
    double nanoseconds = 0;
    const std::string tasks = "/proc/" + std::to_string(pid_) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
        std::ifstream file(task.path() / "schedstat");
        double running = 0;
        if (file >> running) nanoseconds += running;
    }
    return nanoseconds * 1e-9;
}

double Child::memory_mib() const {
    std::ifstream file("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("VmHWM:")) return std::atof(line.c_str() + 6) / 1024;
    }
    return 0;
}

Child start_server(const WireSetup& setup, std::uint32_t index) {
    return Child({"--serve", std::to_string(index), std::to_string(setup.servers),
                  std::to_string(setup.workers), std::to_string(setup.tensors),
                  std::to_string(setup.tensor_bytes),
                  setup.transport == TransportKind::tcp ? "tcp" : "ipc",
                  setup.checksums ? "on" : "off", setup.rule});
}
std::string tcp_of(const Child& server) { return server.line().substr(0, server.line().find(' ')); }
std::string ipc_of(const Child& server) {
    return server.line().substr(server.line().find(' ') + 1);
}
Child start_raw(TransportKind transport, std::uint64_t bytes) {
    return Child({"--raw", transport == TransportKind::tcp ? "tcp" : "ipc", std::to_string(bytes)});
}

bool is_child(int argc, char** argv) {
    return argc > 1 && (std::strcmp(argv[1], "--serve") == 0 || std::strcmp(argv[1], "--raw") == 0);
}

int child_main(int argc, char** argv) {
    const auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
    if (std::strcmp(argv[1], "--raw") == 0 && argc == 4) {
        return raw_main(std::strcmp(argv[2], "tcp") == 0, number(3));
    }
    if (argc != 10) return 2;
    WireSetup setup;
    setup.servers = static_cast<std::uint32_t>(number(3));
    setup.workers = static_cast<std::uint32_t>(number(4));
    setup.tensors = static_cast<std::uint32_t>(number(5));
    setup.tensor_bytes = number(6);
    setup.transport = std::strcmp(argv[7], "tcp") == 0 ? TransportKind::tcp : TransportKind::ipc;
    setup.checksums = std::strcmp(argv[8], "on") == 0;
    setup.rule = argv[9];
    return serve(setup, static_cast<std::uint32_t>(number(2)));
}

RawClient::RawClient(TransportKind transport, const Child& raw, std::uint64_t bytes)
    : memory_(bytes) {
    const bool tcp = transport == TransportKind::tcp;
    socket_ = ::socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    int status = -1;
    if (tcp) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(raw.line())));
        status = ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address);
        const int one = 1;
        ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    } else {
        const auto [address, size] = abstract_address(raw.line());
        status = ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), size);
    }
    invariant(status == 0, "the raw child listens");
}
RawClient::~RawClient() { ::close(socket_); }

void RawClient::request(char what, std::uint64_t bytes, std::uint64_t chunk_bytes) {
    const RawRequest request{bytes, chunk_bytes, static_cast<std::uint64_t>(what)};
    invariant(write_exactly(socket_, &request, sizeof request), "the raw child lives");
}
void RawClient::write_all(std::uint64_t bytes, std::uint64_t chunk_bytes) {
    for (std::uint64_t at = 0; at < bytes;) {
        const std::uint64_t size = std::min(chunk_bytes, bytes - at);
        invariant(write_exactly(socket_, memory_.data() + at % memory_.size(), size), "lives");
        at += size;
    }
}
void RawClient::read_all(std::uint64_t bytes, std::uint64_t chunk_bytes) {
    for (std::uint64_t at = 0; at < bytes;) {
        const std::uint64_t size = std::min(chunk_bytes, bytes - at);
        invariant(read_exactly(socket_, memory_.data() + at % memory_.size(), size), "lives");
        at += size;
    }
}
void RawClient::push(std::uint64_t bytes, std::uint64_t chunk_bytes) {
    request('p', bytes, chunk_bytes);
    write_all(bytes, chunk_bytes);
    char done = 0;
    invariant(read_exactly(socket_, &done, 1), "the raw child lives");
}
void RawClient::pull(std::uint64_t bytes, std::uint64_t chunk_bytes) {
    request('g', bytes, chunk_bytes);
    read_all(bytes, chunk_bytes);
}
void RawClient::push_pull(std::uint64_t bytes, std::uint64_t chunk_bytes) {
    request('b', bytes, chunk_bytes);
    write_all(bytes, chunk_bytes);
    read_all(bytes, chunk_bytes);
}

}  // namespace detente::bench
