#include <cstdio>

int main() {
    std::puts("detente: under construction");
    return 0;
}
