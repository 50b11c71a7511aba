package settings

import (
	"strconv"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/gzip"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay/quota"
)

// Relay returns what the engine needs of the settings, with compressors from a budget.
func (s *Settings) Relay(compressors *gzip.Budget) relay.Config {
	cfg := relay.Config{
		Guarded:   s.Wrapping,
		Shared:    s.Fleet,
		Heartbeat: time.Duration(s.Heartbeat.Interval),
		Words:     s.Words[:],
		History: hub.Limits{
			Events: s.History.Events,
			Bytes:  int(s.History.Size),
			Age:    time.Duration(s.History.Age),
		},
		FirstEvents:    s.FirstEvents,
		AssignIDs:      s.IDs == "assign",
		Catchups:       s.Catchup.Connections,
		CatchupTimeout: time.Duration(s.Catchup.Timeout),
		BacklogBytes:   s.BacklogBytes,
		Retry:          time.Duration(s.Retry),
		Linger:         time.Duration(s.Linger.Duration),
		LingerTopics:   s.Linger.Topics,
		Wait:           time.Duration(s.Wait),
		Reject:         s.Reject,
		ReconnectMin:   time.Duration(s.Reconnect.Min),
		ReconnectMax:   time.Duration(s.Reconnect.Max),
		IdleTimeout:    time.Duration(s.IdleTimeout),
		CloseOnEnd:     s.OnEnd == "close",
		MaxEventSize:   s.MaxEventSize,
		Limits: quota.Limits{
			Topics:               s.MaxTopics.Total,
			TopicsOfAddress:      s.MaxTopics.PerClientIP,
			Subscribers:          s.MaxSubscribers.Total,
			SubscribersOfTopic:   s.MaxSubscribers.PerTopic,
			SubscribersOfAddress: s.MaxSubscribers.PerClientIP,
		},
		StreamTimeout: time.Duration(s.StreamTimeout),
		Spread:        time.Duration(s.StreamCloseDelay),
	}
	if s.Compresses() {
		cfg.Compress = &gzip.Settings{Level: s.Compress.Level, Budget: compressors}
		cfg.CompressFrom = s.Compress.From
	}
	if n, err := strconv.Atoi(s.Greeting); err == nil {
		cfg.GreetingEvents = n
	} else {
		cfg.GreetingType = s.Greeting
	}
	return cfg
}

// Compresses reports whether topics are compressed for clients that accept gzip.
func (o *Options) Compresses() bool { return o.Compress.Encoding == "gzip" }

// ReconnectionTime is what clients are told if the origin has said nothing.
func (s *Settings) ReconnectionTime() time.Duration {
	if s.Retry > 0 {
		return time.Duration(s.Retry)
	}
	return relay.DefaultRetry
}
