<?php
set_time_limit(0);
while (ob_get_level() > 0) {
    ob_end_clean();
}

// The test reads here who opened a stream, and when it was left.
if ($log = getenv('STREAM_LOG')) {
    $note = fn(string $what) => file_put_contents($log, $what . "\n", FILE_APPEND | LOCK_EX);
    $note('open cookie=' . ($_SERVER['HTTP_COOKIE'] ?? ''));
    register_shutdown_function($note, 'close');
}

$interval = 0.05;
$epoch = getenv('EPOCH_MS') / 1000;
$newest = (int) ((microtime(true) - $epoch) / $interval);
$last = (int) ($_SERVER['HTTP_LAST_EVENT_ID'] ?? 0);
$first = $last > 0 && $last < $newest ? $last + 1 : $newest + 1;

header('Content-Type: text/event-stream');
for ($n = $first;; $n++) {
    usleep(max(0, (int) (($epoch + $n * $interval - microtime(true)) * 1e6)));
    echo "id: $n\ndata: {\"n\":$n}\n\n";
    // PHP notices here that the client has left, and ends the script.
    flush();
}
