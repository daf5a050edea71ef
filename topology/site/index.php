<?php
// The front page: shows which node served it, and for which virtual IP.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';

method('GET');
label();
?>
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="stylesheet" href="style.css">
<title>Game on</title>
<header>
  <h1>Game on</h1>
  <p>Two hundred players, one ledger, and every coin counted.</p>
</header>
<main>
  <p>Served by <strong><?= htmlspecialchars(node()) ?></strong> for <strong><?= htmlspecialchars(vip()) ?></strong>.</p>
  <ul class="links">
    <li><a href="news.html">News</a></li>
    <li><a href="rules.html">Rules</a></li>
    <li><a href="coins.php">All balances</a></li>
    <li><a href="ledger.php?after=0&amp;limit=20">The first entries of the ledger</a></li>
    <li><a href="health.php">Health</a></li>
  </ul>
</main>
</html>
