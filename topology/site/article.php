<?php
// One of the site's articles as the master has it, or a new text for it.
declare(strict_types=1);

require __DIR__ . '/lib/site.php';
require __DIR__ . '/lib/articles.php';

function text(): string
{
    $text = parameter('text');
    if ($text === null || strlen($text) > TEXT_BYTES || !preg_match('//u', $text)) {
        throw new Refusal(400, 'text must be UTF-8 of at most ' . TEXT_BYTES . ' bytes');
    }
    return $text;
}

if (method('GET', 'POST') === 'GET') {
    $article = number('article', 1, ARTICLES);
    answer(is_master() ? read_article($article) : asked_of_master());
}
$article = number('article', 1, ARTICLES);
$text = text();
answer(is_master() ? write_article($article, $text, op()) : asked_of_master());
