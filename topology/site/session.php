<?php
// Who is logged in, and the number of requests of this script in the session, this one included.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/session.php';

method('GET');
if (!resume()) {
    answer(['player' => null, 'pages' => 0]);
}
$player = $_SESSION['player'] ?? null;
$pages = $_SESSION['pages'] = ($_SESSION['pages'] ?? 0) + 1;
keep();
answer(['player' => $player, 'pages' => $pages]);
