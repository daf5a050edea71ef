<?php
// Says which node served the request, and on which of its addresses (one for each virtual IP) it came in.
$node = gethostname();
$address = $_SERVER['SERVER_ADDR'];
header('Cache-Control: no-store');
?>
<!doctype html>
<html lang="en">
<title>Game on</title>
<h1>Game on</h1>
<p>Served by <strong><?= htmlspecialchars($node) ?></strong> on <?= htmlspecialchars($address) ?>.</p>
</html>
