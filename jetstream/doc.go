// Package jetstream makes Caddy nodes a fleet that opens one upstream connection per topic,
// on NATS JetStream.
//
// All nodes with clients of a topic compete for the topic's lease. The holder asks the
// origin, and publishes the events to a stream. Every node, the holder included, feeds its
// topic from that stream:
//
//	origin ──▶ holder ──▶ publisher ──▶ JetStream ──▶ feed ──▶ topic of each node
//
// JetStream alone decides in which order events come, and whose events count. A stale
// holder can publish, but nobody reads what it publishes: see order.
//
// The package is a guest. The engine and the root package do not know it, and Caddy has it
// only if it is imported.
package jetstream
