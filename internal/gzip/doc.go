// Package gzip compresses a log once for all who read it, each of whom gets one member of
// gzip (RFC 1952) of its own.
//
// A Rendition makes pieces of a log: each is a run of entries, deflated (RFC 1951) and
// flushed to a whole byte. Pieces refer to what was sent before them. At a restart point, the
// compressor starts afresh, and is shown the last entries before it: what follows refers to
// these and to nothing older. A reader that begins between two restart points gets stored
// blocks, which say the same without compression and cost no more than a copy. At the first
// restart point of which it has had those entries it is in step: from there on it gets the
// shared pieces. So a reader has sent nobody else's history, and a piece is compressed once
// however many read it.
//
// What only one reader is told goes into a stored block as well. It moves what the next
// piece would refer to, so that the reader is out of step until the next restart point. The
// heartbeats of the log, and the words for its gaps, are pieces like its entries.
//
// The end of a member is a checksum and a length of all that the reader got. Nothing is
// counted for each reader and piece: see Sum.
//
// The package knows no HTTP, no Caddy and no stream format.
package gzip
