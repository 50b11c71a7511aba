package ssefanout

import "github.com/sse-fanout/caddy-sse-fanout/internal/settings"

// The settings of a handler stand in internal/settings, beside their defaults, their
// grammar, and what is derived from them. As parts of the JSON configuration, they have
// these names.
type (
	// Options are the settings of a handler.
	Options = settings.Options

	// Heartbeat is what subscribers get when a topic has been quiet.
	Heartbeat = settings.Heartbeat

	// History bounds what a topic remembers.
	History = settings.History

	// Catchup is how missed events are fetched from the origin.
	Catchup = settings.Catchup

	// Linger is what happens to a topic that has no subscribers.
	Linger = settings.Linger

	// Reconnect is how long to wait before connecting to the origin again.
	Reconnect = settings.Reconnect

	// TopicLimits bound the topics of a handler.
	TopicLimits = settings.TopicLimits

	// SubscriberLimits bound the subscribers of a handler.
	SubscriberLimits = settings.SubscriberLimits
)
