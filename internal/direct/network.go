package direct

// A Network is what a shard needs of the kernel. Send, SendAll, Held and Shut are called
// by one goroutine.
type Network interface {
	// Add begins to watch a socket. The tag comes back with its events, and tells
	// it from an earlier socket of the same number.
	Add(fd int32, tag uint32) error

	// Wait blocks until there are events, and puts as many as there are room for
	// into events. After Close it returns an error.
	Wait(events []Event) (int, error)

	// Send sends what a socket takes of p without blocking, and returns how many
	// bytes that are. An error means that the connection is broken.
	Send(fd int32, p []byte) (int, error)

	// SendAll is Send to each of the sockets. For one whose connection is broken,
	// it puts -1 into sent, which is as long as fds.
	SendAll(fds []int32, p []byte, sent []int32)

	// Held returns how many bytes of what a socket took its client has not taken yet,
	// or 0 if that is not known.
	Held(fd int32) int

	// Shut closes a socket. It is no longer watched.
	Shut(fd int32)

	// Close makes Wait return. The sockets must be closed before.
	Close() error
}

// An Event is news of a socket.
type Event struct {
	FD  int32
	Tag uint32

	// Gone says that the client has closed its connection or its half of it, or
	// that the connection is broken.
	Gone bool

	// Room says that the socket takes bytes again.
	Room bool
}
