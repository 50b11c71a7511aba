package settings

import (
	"strconv"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// Relay returns what the engine needs of the settings.
func (s *Settings) Relay() relay.Config {
	cfg := relay.Config{
		Guarded:   s.Wrapping,
		Heartbeat: time.Duration(s.Heartbeat.Interval),
		Words:     s.Words[:],
		History: hub.Limits{
			Events: s.History.Events,
			Bytes:  int(s.History.Size),
			Age:    time.Duration(s.History.Age),
		},
		FirstEvents:              s.FirstEvents,
		AssignIDs:                s.IDs == "assign",
		Catchups:                 s.Catchup.Connections,
		CatchupTimeout:           time.Duration(s.Catchup.Timeout),
		BacklogBytes:             s.BacklogBytes,
		Retry:                    time.Duration(s.Retry),
		Linger:                   time.Duration(s.Linger.Duration),
		LingerTopics:             s.Linger.Topics,
		Wait:                     time.Duration(s.Wait),
		Reject:                   s.Reject,
		ReconnectMin:             time.Duration(s.Reconnect.Min),
		ReconnectMax:             time.Duration(s.Reconnect.Max),
		IdleTimeout:              time.Duration(s.IdleTimeout),
		CloseOnEnd:               s.OnEnd == "close",
		MaxEventSize:             s.MaxEventSize,
		MaxTopics:                s.MaxTopics.Total,
		MaxTopicsPerAddress:      s.MaxTopics.PerClientIP,
		MaxSubscribers:           s.MaxSubscribers.Total,
		MaxSubscribersPerTopic:   s.MaxSubscribers.PerTopic,
		MaxSubscribersPerAddress: s.MaxSubscribers.PerClientIP,
		StreamTimeout:            time.Duration(s.StreamTimeout),
		Spread:                   time.Duration(s.StreamCloseDelay),
	}
	if n, err := strconv.Atoi(s.Greeting); err == nil {
		cfg.GreetingEvents = n
	} else {
		cfg.GreetingType = s.Greeting
	}
	return cfg
}

// ReconnectionTime is what clients are told if the origin has said nothing.
func (s *Settings) ReconnectionTime() time.Duration {
	if s.Retry > 0 {
		return time.Duration(s.Retry)
	}
	return relay.DefaultRetry
}
