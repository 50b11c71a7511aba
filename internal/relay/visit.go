package relay

// A Visit is a client that comes to share a topic.
type Visit struct {
	// Key names the topic within the relay, and Name to people.
	Key  string
	Name func() string

	// Open returns the source of a topic that is opened for this client. It is called
	// with a lock held: it must neither block nor call anything of the relay.
	Open func(t *Topic) Source

	// Barred, if set, is why no topic is opened for this client: it may join one.
	Barred error

	// Claim is what it resumes with.
	Claim Claim

	// Address is what limits and queues count it by.
	Address string

	// Audience is the index of its Words.
	Audience uint8

	// Patient clients cannot be held without the origin's word: they wait for it as
	// long as it takes.
	Patient bool

	// Gate tells whether it may share the topic. Nil: it may.
	Gate Gate
}

// A Gate tells whether a client may share a topic.
type Gate interface {
	// Judge returns why the client may not share, as an error; known is false while that
	// cannot be told. It is called again whenever something has changed (see
	// Topic.Changed), also when the client has waited for as long as it is held without a
	// word of the origin, which late says, and when it has waited for GatePatience.
	Judge(t *Topic, late, unled bool) (why error, known bool)
}
