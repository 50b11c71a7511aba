package demo

import "github.com/prometheus/client_golang/prometheus"

// subscribersMetric is how many clients the module serves, by its own word: the
// handlers in front of it cannot know, since a client whose connection has been
// handed over is no request of theirs any more.
const subscribersMetric = "caddy_sse_fanout_subscribers"

// connectionsMetric is how many connections with several streams there are.
const connectionsMetric = "caddy_sse_fanout_multiplex_connections"

// gaugeOf returns what a metric says in a registry, zero if it is not there.
func gaugeOf(from prometheus.Gatherer, name string) int {
	families, err := from.Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		if f.GetName() == name && len(f.Metric) > 0 {
			return int(f.Metric[0].GetGauge().GetValue())
		}
	}
	return 0
}
