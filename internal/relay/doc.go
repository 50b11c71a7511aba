// Package relay is the engine: it keeps one connection to the origin for each topic,
// and lets any number of readers follow it.
//
// To its left a [Source] feeds a topic's log, to its right a [Reader] drains it. It
// knows events, ids, limits and time. It knows neither Caddy nor HTTP, writes no log
// lines and exports no metrics: an [Observer] is told what happens.
package relay
