// Hosts that are network namespaces of this machine: each with a host name, an address and a link
// of its own to a bridge, which lies in a namespace too, so that nothing of the machine's own
// network is touched. Gone with the object.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/system/launched.h"

namespace detente::test {

class NetworkOfHosts {
  public:
    // Empty, or why there cannot be one: not root, no `ip`, or the kernel refuses.
    static std::string hindrance();

    // Hosts h1, h2, …, at 10.77.0.1, ….
    explicit NetworkOfHosts(int hosts);
    ~NetworkOfHosts();
    NetworkOfHosts(const NetworkOfHosts&) = delete;
    NetworkOfHosts& operator=(const NetworkOfHosts&) = delete;

    // `detente` with these words on a host, its environment set before. Its output lies in a folder
    // of its own.
    std::unique_ptr<Launched> start(int host, const std::vector<std::string>& variables,
                                    const std::vector<std::string>& arguments);
    void cut(int host);
    void mend(int host);
    // Both ways.
    void slow_down(int host, const std::string& rate);

  private:
    std::string name(int host) const;  // 0 is the bridge's

    int hosts_;
    std::string prefix_;
    std::vector<std::unique_ptr<TemporaryFolder>> outputs_;
};

}  // namespace detente::test
