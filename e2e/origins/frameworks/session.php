<?php
// As Laravel does: a session for everybody, and headers that keep caches away.
session_save_path(sys_get_temp_dir());
session_start();
session_write_close();
header('Content-Type: text/event-stream; charset=UTF-8');
header('Cache-Control: no-cache, private');
header('X-Accel-Buffering: no');
while (ob_get_level() > 0) {
    ob_end_flush();
}
$last = $_SERVER['REQUEST_URI'] === '/finite' ? 5 : PHP_INT_MAX;
for ($n = 1; $n <= $last && !connection_aborted(); $n++) {
    echo "id: $n\ndata: {\"n\":$n}\n\n";
    flush();
    usleep(100000);
}
