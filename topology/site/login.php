<?php
// Begins a session for a player, always under a new id, so that an earlier id is useless to anyone.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/session.php';

method('POST');
$player = player();
if (!resume()) {
    start();
} elseif (!session_regenerate_id(true)) {
    unset_cookie();
    throw new Refusal(503, 'the session cannot be replaced');
}
$_SESSION = ['player' => $player, 'pages' => 0];
keep();
answer(['player' => $player]);
