package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken below Linux's range for outgoing connections (32768 and up):
// a server that is killed and started again needs its old port, and there no
// stranger's outgoing connection can have taken it meanwhile.
const lowestPort, highestPort = 12000, 32000

// freePorts finds count consecutive ports that nobody listens on and that are
// not in taken, enters them there, and returns the first.
func freePorts(count int, taken map[int]bool) (int, error) {
	for range 1000 {
		first := lowestPort + rand.IntN(highestPort-lowestPort-count)
		ok := true
		for p := first; p < first+count && ok; p++ {
			ok = !taken[p] && bindable(p)
		}
		if !ok {
			continue
		}
		for p := first; p < first+count; p++ {
			taken[p] = true
		}
		return first, nil
	}
	return 0, fmt.Errorf("no %d consecutive free ports between %d and %d: stop other servers", count, lowestPort, highestPort)
}

// bindable asks at every address that members of a cluster have.
func bindable(port int) bool {
	for n := 1; n <= 3; n++ {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%d", n, port))
		if err != nil {
			return false
		}
		if ln.Close() != nil {
			return false
		}
	}
	return true
}
