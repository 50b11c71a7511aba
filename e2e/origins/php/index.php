<?php
// Everything the page can see of a request, but for what no two requests share.
$server = array_diff_key($_SERVER, array_flip(['REMOTE_PORT', 'REQUEST_TIME', 'REQUEST_TIME_FLOAT']));
ksort($server);

setcookie('session', 'abc', ['httponly' => true]);
header('Content-Type: application/json');
header('X-Page: index', true, $_SERVER['REQUEST_METHOD'] === 'PUT' ? 201 : 200);
echo json_encode([
    'server' => $server,
    'get' => $_GET,
    'post' => $_POST,
    'cookie' => $_COOKIE,
    'body' => hash('sha256', file_get_contents('php://input')),
]);
