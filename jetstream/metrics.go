package jetstream

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

// A collector counts what the fleets of the process do, of all configurations that go on.
type collector struct{}

var (
	descConnected = prometheus.NewDesc("caddy_sse_fanout_fleet_connected",
		"Whether there is a connection to a NATS server.", []string{"stream"}, nil)
	descTopics = prometheus.NewDesc("caddy_sse_fanout_fleet_topics",
		"Topics of this node that are in the fleet, by what the node is for them: holder, follower or apart, which asks the origin without the fleet.",
		[]string{"stream", "role"}, nil)
	descLag = prometheus.NewDesc("caddy_sse_fanout_fleet_lag_messages",
		"Messages in the stream that this node has not read yet, of the topic with most of them.", []string{"stream"}, nil)
	descFallbacks = prometheus.NewDesc("caddy_sse_fanout_fleet_fallbacks_total",
		"How often a topic of this node has gone on without the fleet.", []string{"stream"}, nil)
	descStalls = prometheus.NewDesc("caddy_sse_fanout_fleet_stalls_total",
		"How often messages may have been lost on their way into the stream, and were sent again.", []string{"stream"}, nil)
)

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConnected, descTopics, descLag, descFallbacks, descStalls} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (collector) Collect(ch chan<- prometheus.Metric) {
	members.Range(func(_, value any) bool {
		if m, ok := value.(*membership); ok {
			m.collect(ch)
		}
		return true
	})
}

func (m *membership) collect(ch chan<- prometheus.Metric) {
	f := m.fleet
	stream := f.store.name
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, append([]string{stream}, labels...)...)
	}
	connected := 0.0
	if m.conn.IsConnected() {
		connected = 1
	}
	gauge(descConnected, connected)
	roles := map[fleet.Role]int{fleet.Holder: 0, fleet.Follower: 0, fleet.Apart: 0}
	lag := int64(0)
	for _, s := range f.all() {
		roles[s.role()]++
		lag = max(lag, s.feed.lag.Load())
	}
	for r, n := range roles {
		gauge(descTopics, float64(n), string(r))
	}
	gauge(descLag, float64(lag))
	ch <- prometheus.MustNewConstMetric(descFallbacks, prometheus.CounterValue, float64(f.fallbacks.Load()), stream)
	ch <- prometheus.MustNewConstMetric(descStalls, prometheus.CounterValue, float64(f.stalls.Load()), stream)
}

// registerMetrics adds the metrics to the registry of a configuration.
func registerMetrics(registry *prometheus.Registry) error {
	if registry == nil {
		return nil
	}
	err := registry.Register(collector{})
	if _, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return nil
	}
	return err
}
