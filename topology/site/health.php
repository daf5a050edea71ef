<?php
// Whether this node can serve: checks the database and the uploads folder. With "of" it checks only one of them: the check
// of a folder whose server is down can hang until the server is back.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/database.php';

function database_health(): string
{
    if (!isset(site()['database'])) {
        return 'none';
    }
    try {
        rows(database(), 'SELECT 1');
        return 'ok';
    } catch (mysqli_sql_exception $failure) {
        return $failure->getMessage();
    }
}

function uploads_health(): string
{
    if (!isset(site()['uploads'])) {
        return 'none';
    }
    return is_dir(site()['uploads']) ? 'ok' : 'missing folder ' . site()['uploads'];
}

method('GET');
$questions = ['database' => database_health(...), 'uploads' => uploads_health(...)];
$of = $_GET['of'] ?? null;
if ($of !== null && !array_key_exists((string) $of, $questions)) {
    throw new Refusal(400, 'of must be one of ' . implode(', ', array_keys($questions)));
}
$asked = $of === null ? $questions : [$of => $questions[$of]];
$health = array_map(fn (Closure $ask): string => $ask(), $asked);
$sick = array_diff($health, ['ok', 'none']);
if ($sick === []) {
    answer($health);
}
answer($health + ['error' => implode('; ', $sick), 'written' => 'no'], 503);
