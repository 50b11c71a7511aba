// Package e2e tests the module as it is used: a real Caddy process, origins in
// the languages whose worker models make sharing worth it, and real clients.
//
// Every origin serves the same timeline: event n happens at the epoch plus n
// times [origins.Interval], whoever is connected, so a restarted origin still
// has what was missed while it was down, as one with a database would.
package e2e
