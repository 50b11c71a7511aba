package ssefanout

import (
	"strconv"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// relayConfig returns what the engine needs of the settings.
func (o *Options) relayConfig() relay.Config {
	cfg := relay.Config{
		Guarded:   o.wrapping,
		Heartbeat: time.Duration(o.Heartbeat.Interval),
		Words:     o.words[:],
		History: hub.Limits{
			Events: o.History.Events,
			Bytes:  int(o.History.Size),
			Age:    time.Duration(o.History.Age),
		},
		FirstEvents:              o.first,
		AssignIDs:                o.IDs == "assign",
		Catchups:                 o.Catchup.Connections,
		CatchupTimeout:           time.Duration(o.Catchup.Timeout),
		BacklogBytes:             o.backlogBytes,
		Retry:                    time.Duration(o.Retry),
		Linger:                   time.Duration(o.Linger.Duration),
		LingerTopics:             o.Linger.Topics,
		Wait:                     time.Duration(o.Wait),
		Reject:                   o.reject,
		ReconnectMin:             time.Duration(o.Reconnect.Min),
		ReconnectMax:             time.Duration(o.Reconnect.Max),
		IdleTimeout:              time.Duration(o.IdleTimeout),
		CloseOnEnd:               o.OnEnd == "close",
		MaxEventSize:             o.MaxEventSize,
		MaxTopics:                o.MaxTopics.Total,
		MaxTopicsPerAddress:      o.MaxTopics.PerClientIP,
		MaxSubscribers:           o.MaxSubscribers.Total,
		MaxSubscribersPerTopic:   o.MaxSubscribers.PerTopic,
		MaxSubscribersPerAddress: o.MaxSubscribers.PerClientIP,
		StreamTimeout:            time.Duration(o.StreamTimeout),
		Spread:                   time.Duration(o.StreamCloseDelay),
	}
	if n, err := strconv.Atoi(o.Greeting); err == nil {
		cfg.GreetingEvents = n
	} else {
		cfg.GreetingType = o.Greeting
	}
	return cfg
}

// reconnectionTime is what clients are told if the origin has said nothing.
func (o *Options) reconnectionTime() time.Duration {
	if o.Retry > 0 {
		return time.Duration(o.Retry)
	}
	return relay.DefaultRetry
}
