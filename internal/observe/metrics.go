package observe

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// The metrics are those of the process: the counters that all pools share, and
// gauges that are read from the pools when somebody asks. What is counted costs
// the way of an event no more than an addition. No label is ever a topic, a client
// or an id.
//
// To add a counter, add a field to Stats and a line to allSeries. What each
// metric means to an operator is in docs/operating.md.

// Stats are what pools count: their relays, and requests that pass.
type Stats struct {
	relay.Stats

	// PassedStreams are the event streams that pass one to one now.
	PassedStreams atomic.Int64

	// Passed are the requests that have passed one to one.
	Passed relay.Tally[pass.Reason]
}

// A series is a counter, and how it is exported.
type series struct {
	desc   *prometheus.Desc
	labels []string // values
	of     func(*Stats) *atomic.Uint64
}

// allSeries has every series there will ever be, so that all exist from the
// start: an alert on the increase of one that appears with its first event would
// miss that event.
var allSeries = slices.Concat(
	counter("events_received_total", "Events that origins have sent, those that they have repeated included.",
		func(s *Stats) *atomic.Uint64 { return &s.Received }),
	counter("events_delivered_total", "Events that were written to subscribers, each counted once for each subscriber.",
		func(s *Stats) *atomic.Uint64 { return &s.Delivered }),
	counter("bytes_delivered_total", "Bytes of events that were written to subscribers.",
		func(s *Stats) *atomic.Uint64 { return &s.DeliveredBytes }),
	counter("heartbeats_total", "Heartbeats that were sent to subscribers.",
		func(s *Stats) *atomic.Uint64 { return &s.Heartbeats }),
	counter("upstream_reconnects_total", "Connections to origins that were lost or refused and are tried again.",
		func(s *Stats) *atomic.Uint64 { return &s.Reconnects }),
	counter("catchups_total", "Extra connections to origins for events that the history no longer had.",
		func(s *Stats) *atomic.Uint64 { return &s.Catchups }),
	counter("gaps_total", "Subscribers that were told that they may have missed events.",
		func(s *Stats) *atomic.Uint64 { return &s.Gaps }),
	counter("oversized_events_total", "Events of origins that were over max_event_size and cost the connection.",
		func(s *Stats) *atomic.Uint64 { return &s.Oversized }),
	counter("ignored_ids_total", "Last event ids of clients that could not be used, being too long or malformed.",
		func(s *Stats) *atomic.Uint64 { return &s.IgnoredIDs }),

	labelled("subscribers_joined_total", "Subscribers by how they began: fresh, resumed, or with a gap.", "outcome",
		[]relay.Joining{relay.Fresh, relay.Resumed, relay.Gap}, relay.Joining.String,
		func(s *Stats, how relay.Joining) *atomic.Uint64 { return s.Joined(how) }),
	labelled("subscribers_ended_total", "Subscribers whose stream has ended, by the reason.", "reason",
		EndReasons, asLabel, func(s *Stats, why relay.EndReason) *atomic.Uint64 { return s.Ended.Counter(why) }),
	labelled("rejected_total", "Clients that were turned away, by the reason.", "reason",
		Rejections, asLabel, func(s *Stats, why relay.Rejection) *atomic.Uint64 { return s.Rejected.Counter(why) }),
	labelled("passed_through_total", "Requests that were not shared but passed one to one, by the reason.", "reason",
		pass.Reasons, asLabel, func(s *Stats, why pass.Reason) *atomic.Uint64 { return s.Passed.Counter(why) }),
)

// The values that the labels can have. A test compares them with the constants.
var (
	// EndReasons are why streams of subscribers end.
	EndReasons = []relay.EndReason{
		relay.EndClientGone, relay.EndSlow, relay.EndStalled, relay.EndTimeout, relay.EndUpstreamEnded,
		relay.EndUpstreamGone, relay.EndRefused, relay.EndDrained, relay.EndExiting, relay.EndDeleted, relay.EndYielded, relay.EndPersonal,
	}

	// Rejections are why clients are turned away.
	Rejections = slices.Concat(relay.Limits, []relay.Rejection{relay.RejectUnavailable, relay.RejectEnding})
)

// The gauges, which are read from the pools that are alive.
var (
	descSubscribers = describeMetric("subscribers",
		"Clients that are served or wait for the origin's first answer.")
	descSubscribersWaiting = describeMetric("subscribers_waiting",
		"Clients of topics that have no connection to their origin now.")
	descPassedStreams = describeMetric("passed_streams",
		"Clients that have an event stream of their own, which passes one to one, or wait for its answer and ask for nothing else.")
	descTopics = describeMetric("topics",
		"Topics that have subscribers or linger.")
	descTopicsWaiting = describeMetric("topics_waiting",
		"Topics that have subscribers but no connection to their origin now.")
	descUpstreams = describeMetric("upstream_connections",
		"Event streams that are held open to origins, catch-ups included.")
	descHistoryEvents = describeMetric("history_events",
		"Events that the histories of all topics hold.")
	descHistoryBytes = describeMetric("history_bytes",
		"Bytes of the events that the histories of all topics hold.")
	descHandlersShutOff = describeMetric("handlers_shut_off",
		"Handlers of the wrapping form that share nothing, as the site does not lead strangers to them or tells clients apart behind them.")

	gaugeDescs = []*prometheus.Desc{
		descSubscribers, descSubscribersWaiting, descPassedStreams, descTopics, descTopicsWaiting,
		descUpstreams, descHistoryEvents, descHistoryBytes, descHandlersShutOff,
	}
)

// DeliverySeconds is observed for some batches of each subscriber, and for each batch of
// direct delivery.
var DeliverySeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
	Name:    metricName("delivery_seconds"),
	Help:    "Time from the arrival of an event from the origin until it is written to a subscriber, sampled.",
	Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
})

// A Process is what the metrics are read from when they are asked for.
type Process interface {
	// Counted returns the counters.
	Counted() *Stats

	// AddTo adds what the pools hold now.
	AddTo(*relay.Gauges)

	// ShutOff is how many handlers share nothing because of what surrounds them.
	ShutOff() int
}

// Register makes the metrics part of what Caddy exports. Each configuration has a
// registry of its own, in which several handlers may meet.
func Register(registry *prometheus.Registry, p Process) error {
	err := registry.Register(collector{p})
	if _, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); err != nil && !ok {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}

// A collector reads the metrics.
type collector struct{ process Process }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range gaugeDescs {
		ch <- desc
	}
	var last *prometheus.Desc
	for _, s := range allSeries {
		if s.desc != last {
			ch <- s.desc
			last = s.desc
		}
	}
	DeliverySeconds.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	counted := c.process.Counted()
	for _, s := range allSeries {
		ch <- prometheus.MustNewConstMetric(s.desc, prometheus.CounterValue, float64(s.of(counted).Load()), s.labels...)
	}
	var g relay.Gauges
	c.process.AddTo(&g)
	for i, value := range []int{
		g.Subscribers, g.SubscribersWaiting, int(counted.PassedStreams.Load()), g.Topics, g.TopicsWaiting,
		int(counted.Connections.Load()), g.HistoryEvents, g.HistoryBytes, c.process.ShutOff(),
	} {
		ch <- prometheus.MustNewConstMetric(gaugeDescs[i], prometheus.GaugeValue, float64(value))
	}
	DeliverySeconds.Collect(ch)
}

func metricName(name string) string {
	return prometheus.BuildFQName("caddy", "sse_fanout", name)
}

func describeMetric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(metricName(name), help, labels, nil)
}

func counter(name, help string, of func(*Stats) *atomic.Uint64) []series {
	return []series{{desc: describeMetric(name, help), of: of}}
}

// asLabel returns a reason as the value of a label.
func asLabel[R ~string](reason R) string { return string(reason) }

// labelled returns a series for each value of a label.
func labelled[V any](name, help, label string, values []V, asLabel func(V) string, of func(*Stats, V) *atomic.Uint64) []series {
	desc := describeMetric(name, help, label)
	all := make([]series, 0, len(values))
	for _, v := range values {
		all = append(all, series{
			desc:   desc,
			labels: []string{asLabel(v)},
			of:     func(s *Stats) *atomic.Uint64 { return of(s, v) },
		})
	}
	return all
}

// Interface guards
var _ prometheus.Collector = collector{}
