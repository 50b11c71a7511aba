// Package faults proves by faults that nothing is lost: hundreds of clients, and a
// schedule of faults that a seed decides. A checker follows every client. TestFaults
// has one Caddy and one origin. TestFleet has three Caddys behind HAProxy, three NATS
// servers and one origin, whose connections it counts. For half an hour of each:
//
//	go test -v -timeout 0 -run TestFaults ./faults -duration 30m -clients 500 -seed 1
//	go test -v -timeout 0 -run TestFleet ./faults -duration 30m -clients 300 -seed 1
package faults
