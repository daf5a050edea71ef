<?php
// Ends the session, on the node and in the browser.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/session.php';

method('POST');
if (resume() && !session_destroy()) {
    throw new Refusal(503, 'the session cannot be removed');
}
if (isset($_COOKIE[session_name()])) {
    setcookie(session_name(), '', ['expires' => 1, 'path' => '/', 'httponly' => true, 'samesite' => 'Lax']);
}
answer(['player' => null]);
