// Package hub is the fan-out point of one stream: a bounded log that one
// publisher appends to and any number of readers follow, each with a cursor
// of its own.
//
// It knows bytes in wire form, their ids, and nothing else: no stream format,
// no HTTP, no Caddy. A reader is only a number, so ten thousand of them cost
// the publisher no more than one: publishing is append and wake. A reader that
// falls behind costs nothing either. Once the log has passed its cursor, it is
// told so, and ended.
//
// Replay and live delivery are the same loop with another starting cursor:
//
//	at := log.Newest()              // or Oldest, Last, After
//	var wake <-chan struct{}
//	for {
//		batch := log.Read(at.Cursor, wake)
//		switch {
//		case batch.Lagged:            // the log has passed this reader
//		case len(batch.Bytes) > 0:    // write them, go on
//			at.Cursor = batch.Next
//		default:
//			wake = batch.Wake
//			<-wake                    // nothing yet
//		}
//	}
package hub
