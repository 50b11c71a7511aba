// Package fleet is the seam between handlers and the fleet that their nodes form: what a
// fleet must know of a topic, and what it is for the handler. It knows no engine of a fleet.
package fleet

import "github.com/sse-fanout/caddy-sse-fanout/internal/relay"

// AppID is the ID of the Caddy app that makes a node part of a fleet. It implements App, and
// is in the binary only if the package jetstream is.
const AppID = "sse_fanout_fleet"

// An App is the Caddy app of that ID.
type App interface {
	// Fleet returns the node's part in the fleet. It may be used until the configuration of
	// the app has ended. From then on, its sources end with relay.ErrClosing.
	Fleet() Fleet
}

// A Fleet is a node's part in a fleet.
type Fleet interface {
	// Source returns the source of a topic. It asks origin if this node is the one that does
	// so for the fleet, or if there is no way to the fleet.
	Source(t Topic, origin relay.Source) relay.Source
}

// A Topic is what a fleet must know of a topic.
type Topic struct {
	*relay.Topic

	// Definition and the topic's key name it. They are equal on all nodes that share it.
	Definition string

	// AssignIDs gives ids to events that have none.
	AssignIDs bool

	// MaxEventSize is that of the largest event, in bytes.
	MaxEventSize int64
}
