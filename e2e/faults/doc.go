// Package faults proves by faults that nothing is lost: one Caddy, one origin,
// hundreds of clients, and a schedule of faults that a seed decides. A checker
// follows every client. For half an hour of it:
//
//	go test -v -timeout 0 -run TestFaults ./faults -duration 30m -clients 500 -seed 1
package faults
